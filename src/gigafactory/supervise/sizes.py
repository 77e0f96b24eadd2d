"""With how many workers a run can go on: whole data replicas, as few or as many as the layout can be cut over."""

from __future__ import annotations

from gigafactory.errors import UserError
from gigafactory.factory.file import Factory
from gigafactory.layout import Layout, check_layout


def layout_for(factory: Factory, workers: int) -> Layout:
    """The file's layout with as many data replicas as this number of workers holds.

    The full run has supervise.workers workers, each with the same number of chips; a file whose layout is one chip
    gets a replica for each worker. A batch that does not divide is padded (`train.batch`). Raises UserError when the
    replicas are not whole or the layout does not fit the model.
    """
    layout = factory.layout
    full = factory.supervise.workers
    if layout.devices == 1:
        cut = layout.model_copy(update={"data": workers})
    else:
        if layout.devices % full:
            raise UserError(
                f"layout: needs {layout.devices} devices ({_degrees(layout)}), which {full} workers cannot share"
                f" evenly; --workers must divide {layout.devices}"
            )
        if layout.data * workers % full:
            raise UserError(
                f"layout: {workers} of {full} workers hold no whole number of its {layout.data} data replicas"
            )
        cut = layout.model_copy(update={"data": layout.data * workers // full})
    if cut.data < 1:
        raise UserError(f"layout: a replica needs {full // layout.data} workers, got {workers}")
    check_layout(
        cut,
        factory.model,
        batch_rows=factory.train.batch_rows,
        sequence=factory.train.sequence,
        accumulate=factory.train.accumulate,
        available_devices=None,
        pad_rows=True,
    )
    return cut


def legal_sizes(factory: Factory, workers: int) -> tuple[int, ...]:
    """Numbers of workers, descending from `workers` to 1, that `layout_for` has a layout for.

    Raises UserError when `workers` itself, the full run, is none of them.
    """
    full = factory.supervise.model_copy(update={"workers": workers})
    factory = factory.model_copy(update={"supervise": full})
    layout_for(factory, workers)
    return tuple(size for size in range(workers, 0, -1) if _fits(factory, size))


def _fits(factory: Factory, workers: int) -> bool:
    try:
        layout_for(factory, workers)
    except UserError:
        return False
    return True


def _degrees(layout: Layout) -> str:
    return " x ".join(f"{axis} {size}" for axis, size in layout.sizes.items() if size > 1)
