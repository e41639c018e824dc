"""Metrics and pictures of a run that was logged to TensorBoard."""

from __future__ import annotations

from pathlib import Path

from lightning_ff.report.series import Metrics, Series

EVENTS = "events.out.tfevents*"


def read_events(folder: Path) -> Metrics:
    """Scalars and the latest picture of every key in a folder's event files, if tensorboard is installed."""
    try:
        from tensorboard.backend.event_processing import event_accumulator  # type: ignore[import-untyped]
    except ImportError:
        return Metrics(notes=["TensorBoard events cannot be read: install lightning-ff[tensorboard]"])
    try:
        # 0 keeps every value; 1 keeps the last picture
        kept = {"scalars": 0, "images": 1, "histograms": 1, "tensors": 1}
        events = event_accumulator.EventAccumulator(str(folder), kept).Reload()
        values = {key: events.Scalars(key) for key in events.Tags()["scalars"]}
        latest = {key: events.Images(key)[-1] for key in events.Tags()["images"]}
    except Exception as error:  # other files raise many types of errors
        return Metrics(notes=[f"TensorBoard events cannot be read: {error}"])
    times = [each.wall_time for key, found in values.items() if not key.startswith("test/") for each in found]
    values.pop("hp_metric", None)  # written by Lightning, not a measurement
    series = {key: Series.of((each.step, each.value) for each in found) for key, found in values.items()}
    seconds = max(times) - min(times) if series and times else None
    pictures = {key: (int(image.step), image.encoded_image_string) for key, image in latest.items()}
    notes = [] if series else ["the TensorBoard events hold no values"]
    return Metrics("TensorBoard events" if series else "", series, seconds, pictures, notes)
