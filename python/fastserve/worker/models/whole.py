"""Models that run a whole batch at once: `execute_whole` is what they write, `execute` follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastserve import errors
from fastserve.worker.models.tensors import rows_of, wrong_output

if TYPE_CHECKING:
    from fastserve.worker.model import Answer, Array, Description, Request


class WholeBatch:
    """Base of a WorkerModel. A worker's channel hands over batches as they were gathered (`execute_whole`)."""

    description: Description

    def describe(self) -> Description:
        return self.description

    def finalize(self) -> None: ...

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """All outputs of one batch; rows in front where the model batches."""
        raise NotImplementedError

    def execute_whole(self, rows: int, inputs: dict[str, Array]) -> dict[str, Array]:
        """Checked: every output, of the described dtype and shape. Raises Internal, or what `run` raises."""
        outputs = self.run(inputs)
        self._check(outputs, rows if self.description.max_batch_rows else None)
        return outputs

    def _check(self, outputs: dict[str, Array], rows: int | None) -> None:
        for spec in self.description.outputs:
            if spec.name not in outputs:
                raise errors.Internal(f'outputs["{spec.name}"]: missing in the answer')
            if wrong := wrong_output(spec, outputs[spec.name], rows):
                raise errors.Internal(wrong)

    def execute(self, requests: list[Request]) -> list[Answer]:
        if not self.description.max_batch_rows or len(requests) == 1:
            return [self._alone(request) for request in requests]
        names = [spec.name for spec in self.description.inputs]
        counts = [rows_of(request.inputs) for request in requests]
        inputs = {name: np.concatenate([r.inputs[name] for r in requests]) for name in names}
        outputs = self.execute_whole(sum(counts), inputs)
        answers, at = [], 0
        for request, count in zip(requests, counts, strict=True):
            answers.append(_answer(request, {k: v[at : at + count] for k, v in outputs.items()}))
            at += count
        return answers

    def _alone(self, request: Request) -> Answer:
        return _answer(request, self.execute_whole(rows_of(request.inputs), request.inputs))


def _answer(request: Request, outputs: dict[str, Array]) -> Answer:
    from fastserve.worker.model import Answer

    wanted = request.outputs or tuple(outputs)
    return Answer({name: outputs[name] for name in wanted})
