"""A BERT classifier as a fixed graph for forward passes on a CPU: Paddle Inference with oneDNN.

Logits differ from the eager model's by less than 1e-5 (tested).
"""

import os
import platform
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import paddle
from paddle import Tensor, nn

INPUTS = ("input_ids", "token_type_ids", "mask")


class _Classifier(nn.Layer):
    def __init__(self, model: nn.Layer) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids, token_type_ids, attention_mask=mask)
        return logits


def available() -> bool:
    """Whether forward passes run through oneDNN here: on x86 processors, when the device is the CPU."""
    return paddle.get_device() == "cpu" and platform.machine() in ("x86_64", "AMD64")


def compiled(model: nn.Layer) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """`model`, a BertForSequenceClassification, with the weights it has now, in eval mode: a call from what
    `Encoded.pad` returns to logits [B, C] float32. The same batch gives the same bits each time. Takes about half a
    second to make.
    """
    from paddle import inference
    from paddle.static import InputSpec

    training = model.training
    specs = [
        InputSpec([None, None], kind, name) for name, kind in zip(INPUTS, ("int64", "int64", "float32"), strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        model.eval()
        graph = paddle.jit.to_static(_Classifier(model), input_spec=specs, full_graph=True)
        paddle.jit.save(graph, f"{folder}/model")
        config = inference.Config(*(str(Path(folder) / f"model.{ending}") for ending in ("json", "pdiparams")))
        config.disable_gpu()
        config.disable_glog_info()
        config.enable_mkldnn()
        # Batches come sorted by length, so one shape's plan is enough; each further one keeps memory.
        config.set_mkldnn_cache_capacity(1)
        config.set_cpu_math_library_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        predictor = inference.create_predictor(config)
        if training:
            model.train()
    handles = {name: predictor.get_input_handle(name) for name in INPUTS}
    output = predictor.get_output_handle(predictor.get_output_names()[0])

    def logits(batch: Mapping[str, np.ndarray]) -> np.ndarray:
        for name, handle in handles.items():
            handle.copy_from_cpu(np.ascontiguousarray(batch[name]))
        predictor.run()
        return np.asarray(output.copy_to_cpu())

    return logits
