"""Count the floating-point operations of a model: of a pair, and of a pair whose document was read before.

    python eval_flops.py --model_type late_fusion --max_seq_length_query 64 --max_seq_length_doc 328
    python eval_flops.py --model_type col --task_name mnli --max_seq_length_sbert 130

Counted on the traced graph, two for each multiplication and addition of its matrix products.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from distill import runtime
from distill.cli import parse, run
from distill.errors import UserError
from virt.product_args import FlopsArgs

CROSS = "cross-encoder, a pair"
_BERT_BASE = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "max_position_embeddings": 512,
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> dict[str, int]:
    """Returns the operations of each part."""
    # 1. Flags, before anything heavy is imported.
    args = parse(FlopsArgs, argv, __doc__)
    runtime.start("cpu")

    # 2. Count.
    found = count(args)
    print(f"{args.model_type}, {' and '.join(map(str, lengths(args)))} tokens")
    for part, flops in found.items():
        fewer = "" if part == CROSS else f"  the cross-encoder's / {found[CROSS] / flops:,.1f}"
        print(f"{part:<36}{flops / 1e9:10.5f} GFLOP{fewer}")
    return found


def lengths(args: FlopsArgs) -> tuple[int, int]:
    """Tokens of query and document."""
    if args.max_seq_length_sbert:
        return args.max_seq_length_sbert, args.max_seq_length_sbert
    return args.max_seq_length_query, args.max_seq_length_doc


def count(args: FlopsArgs) -> dict[str, int]:
    """{part: operations} for one query and one document of the longest lengths."""
    from paddlenlp.transformers import BertConfig, BertModel

    from distill.data.tasks import get_task
    from distill.encoders.folder import flatten_config
    from distill.encoders.inference import BERT_INPUTS
    from distill.encoders.taps import Reading
    from distill.evaluation.flops import forward_flops
    from distill.files import read_settings
    from distill.teachers.teacher import BertForPairs
    from models.dual_encoder import SCORING_INPUTS, TOWER_INPUTS, Scoring, Tower, create_dual_encoder

    first, second = lengths(args)
    joint, outputs = first + second - 1, get_task(args.task_name).num_outputs
    given = flatten_config(read_settings(args.bert_config_file)) if args.bert_config_file else {}
    sizes = {name: given.get(name, size) for name, size in _BERT_BASE.items()}
    if joint > sizes["max_position_embeddings"]:
        raise UserError(
            f"{first} and {second} tokens are read as {joint}, and the BERT reads at most "
            f"{sizes['max_position_embeddings']}: give smaller --max_seq_length_query and --max_seq_length_doc"
        )
    bert = BertModel(BertConfig(vocab_size=1, **sizes))  # looking words up is free

    def flops(layer: Any, kinds: Mapping[str, tuple[int, str]], *shapes: tuple[int, ...]) -> int:
        named = zip(kinds.items(), shapes, strict=True)
        return forward_flops(layer, {name: (shape, kind) for (name, (_, kind)), shape in named})

    together = Reading(BertForPairs(bert, outputs, args.pooling_strategy), (), ())
    cross = flops(together, BERT_INPUTS | {"positions": (2, "int64")}, *[(1, joint)] * 4)
    if args.model_type == "bert":
        return {CROSS: cross}
    model = create_dual_encoder(
        args.model_type, bert, outputs, pooling=args.pooling_strategy, poly_first_m=args.poly_first_m,
        resnet_predict=args.use_resnet_predict and args.model_type == "late_fusion", colbert_dim=args.colbert_dim,
    )  # fmt: skip
    kept = model.query_vectors(first), model.document_vectors(second)
    query, document = (
        flops(Tower(model, side), TOWER_INPUTS, *[(1, tokens)] * 3)
        for side, tokens in (("query", first), ("document", second))
    )
    shapes = {"mask_a": (1, first), "mask_b": (1, kept[1])}
    shapes |= {name: (1, n, model.state_width) for name, n in zip(("query", "document"), kept, strict=True)}
    scoring = flops(Scoring(model), SCORING_INPUTS, *(shapes[name] for name in SCORING_INPUTS))
    return {
        "query tower": query,
        "document tower, once a document": document,
        "interaction and head": scoring,
        "a pair": query + document + scoring,
        "a pair, its document read before": query + scoring,
        "a further document for the query": scoring,
        CROSS: cross,
    }


if __name__ == "__main__":
    run(main)
