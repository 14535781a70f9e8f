"""Read a corpus of documents by a dual encoder, once, into a store that score.py compares queries with.

    python encode.py --model_path my_student --corpus documents.tsv --text_column passage --store my_store

A killed run continues where it stopped when the same command is given again.
"""

import hashlib
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from distill import runtime
from distill.cli import parse, run
from distill.errors import UserError
from virt.product_args import EncodeArgs

BLOCK = 256  # documents written at a time: what a kill may cost
_MANY = 64  # for fewer a graph takes longer to make than it saves


def main(argv: Sequence[str] | None = None) -> Path:
    """Returns the store's folder."""
    # 1. Flags, before anything heavy is imported.
    args = parse(EncodeArgs, argv, __doc__)
    args.require(corpus="a file of documents")
    runtime.require_one_process()
    runtime.start(args.device)
    import numpy as np
    from tqdm import tqdm

    from distill.data.documents import read_documents
    from distill.data.wordpiece import WordPiece, report_cut
    from distill.encoders import inference
    from models.document_store import StoreWriter
    from models.dual_encoder import TOWER_INPUTS, Tower, load_dual_encoder, model_digest, tower_inputs

    inference.require(args.forward_precision)

    # 2. The documents, read through: what is wrong in them is said before the work begins.
    count, corpus = survey(args)

    # 3. The model.
    model, wordpiece = load_dual_encoder(args.model_path), WordPiece.from_folder(args.model_path)
    if model.config.plain_mean:
        raise UserError(f"{args.model_path}: pools over padding (--plain_mean), which is not stored; train without it")
    longest = model.lengths[1]

    # 4. The store.
    about = {"model": model_digest(args.model_path), "model_type": model.model_type, "width": model.state_width}
    about |= {"corpus": corpus, "documents": count, "max_length": longest, "precision": args.forward_precision}
    store = StoreWriter(args.store, about, args.overwrite)
    if store.finished:
        runtime.log(f"{args.store} holds these documents; --overwrite reads them again")
        return Path(args.store)
    if store.documents:
        runtime.log(f"{store.documents:,} of {count:,} documents are there, continuing")

    # 5. Forward passes, block by block.
    tower = Tower(model, "document")
    read = inference.eager(tower, TOWER_INPUTS)
    if inference.available() and (count >= _MANY or args.forward_precision == "bf16"):
        read = inference.compiled(tower, TOWER_INPUTS, args.forward_precision)
    documents = itertools.islice(read_documents(args.corpus, args.text_column, args.id_column), store.documents, None)
    terminal, cut = sys.stderr.isatty(), []
    with tqdm(
        total=count, initial=store.documents, desc="documents", unit=" documents", leave=False,
        delay=1 if terminal else 30, mininterval=0.2 if terminal else 30,
    ) as bar:  # fmt: skip
        while block := list(itertools.islice(documents, BLOCK)):
            names, texts = zip(*block, strict=True)
            encoded = wordpiece.encode(texts, None, longest)
            lengths = encoded.lengths
            cut.extend(encoded.cut)
            states = [np.empty(0)] * len(block)
            order = np.argsort(lengths, kind="stable")
            for start in range(0, len(order), args.batch_size):
                rows = order[start : start + args.batch_size]
                (found,) = read(tower_inputs(encoded, rows, longest, wordpiece.pad_id))
                for row, of_document in zip(rows, found, strict=True):
                    states[row] = of_document[: model.document_vectors(int(lengths[row]))]
                bar.update(len(rows))
            store.add(names, states)
    store.finish()
    report_cut("documents read now", np.array(cut, bool), f"the model's {longest} tokens")
    runtime.log(f"{count:,} documents; written: {args.store}")
    return Path(args.store)


def survey(args: EncodeArgs) -> tuple[int, str]:
    """How many documents there are, and the digest of their names and texts. Raises UserError for a repeated name."""
    from distill.data.documents import read_documents

    content, names, count = hashlib.sha256(), set(), 0
    for name, text in read_documents(args.corpus, args.text_column, args.id_column):
        if args.id_column and name in names:
            raise UserError(f"{args.corpus}: '{name}' is the name of several documents in '{args.id_column}'")
        names |= {name} if args.id_column else set()
        content.update(f"{name}\t{text}\0".encode("utf-8", "surrogatepass"))
        count += 1
    return count, content.hexdigest()


if __name__ == "__main__":
    run(main)
