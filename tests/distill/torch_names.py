"""PaddleNLP's BERT weights under PyTorch's names and in its layout, written out independently of the converter."""

_LAYER = {
    "self_attn.q_proj": "attention.self.query",
    "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value",
    "self_attn.out_proj": "attention.output.dense",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm1": "attention.output.LayerNorm",
    "norm2": "output.LayerNorm",
}


def to_torch_names(state, prefix="bert."):
    """Rename {paddle name: array} in place; `prefix` stands before the encoder's names."""
    for name in list(state):
        array = state.pop(name)
        if name.endswith(".weight") and array.ndim == 2 and "_embeddings." not in name:
            array = array.T.copy()
        if name.startswith("bert."):
            parts = name.removeprefix("bert.").split(".")
            if parts[0] == "encoder":
                parts = ["encoder", "layer", parts[2], _LAYER[".".join(parts[3:-1])], parts[-1]]
            name = prefix + ".".join(parts).replace("layer_norm", "LayerNorm")
        state[name] = array
