"""What may be said of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chainops.batch.formats import Format
    from chainops.batch.openai_api import OpenAIBatch


class Options(TypedDict, total=False):
    """What may be said beside chain, rows and output."""

    concurrency: int
    """How many rows are in flight at most; 8. The chain's own limits hold beside it, and make rows wait."""
    in_order: bool
    """Answers in the order of the rows, not as they were finished."""
    format: Format | None
    """jsonl, csv or parquet; None: as the output is called."""
    limit: int | None
    """Only the first so many rows."""
    question: str
    """The column that is the question. A table must have it in its header; elsewhere it is enough that one row has it:
    the others are failed rows. What can be read only once is not looked at before."""
    keep: Sequence[str]
    """Columns of the rows that their answers carry under the same name, beside `row` (the number of the row) and `id`,
    which they always do. A row without one has nothing there; in CSV and Parquet they are text."""
    retry_errors: bool
    """Ask rows again that failed before."""
    restart: bool
    """Drop what was done before; an output that is there is replaced in the end."""
    via: Literal["openai-batch"] | OpenAIBatch | None
    """None asks the chain. "openai-batch", or an `OpenAIBatch` with settings, hands the model's calls to the provider's
    batch API, at half the price and within a day."""
    skip_wrappers: bool
    """With `via`: leave out the wrappers of the pipeline, which cannot look at such answers."""
    progress: bool
    """Whether to show any."""
