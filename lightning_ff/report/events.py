"""Metrics and pictures of a run that was logged to TensorBoard."""

from __future__ import annotations

from pathlib import Path

from lightning_ff.report.series import Metrics, Series

EVENTS = "events.out.tfevents*"
_SOURCE = "TensorBoard events"


def read_events(folder: Path) -> Metrics:
    """Scalars and the latest picture of every key in a folder's event files, if tensorboard is installed."""
    try:
        from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
            EventAccumulator,
        )
    except ImportError:
        return Metrics(notes=["TensorBoard events cannot be read: install lightning-ff[tensorboard]"])
    try:
        # 0 keeps every value; 1 keeps the last picture
        events = EventAccumulator(str(folder), {"scalars": 0, "images": 1, "histograms": 1, "tensors": 1}).Reload()
        series, times = {}, []
        for key in events.Tags()["scalars"]:
            values = events.Scalars(key)
            times += [value.wall_time for value in values if not key.startswith("test/")]
            if key != "hp_metric":  # written by Lightning, not a measurement
                series[key] = Series.of((value.step, value.value) for value in values)
        latest = {key: events.Images(key)[-1] for key in events.Tags()["images"]}
    except Exception as error:  # other files raise many types of errors
        return Metrics(notes=[f"TensorBoard events cannot be read: {error}"])
    seconds = max(times) - min(times) if series and times else None
    pictures = {key: (int(image.step), image.encoded_image_string) for key, image in latest.items()}
    notes = [] if series else ["the TensorBoard events hold no values"]
    return Metrics(_SOURCE if series else "", series, seconds, pictures, notes)
