"""Loss on the output of the embeddings."""

from paddle import Tensor

from distill.losses.hidden import Form, hidden_mse


def embedding_mse(student: Tensor, teacher: Tensor, mask: Tensor | None, form: Form = "paper") -> Tensor:
    """Mean squared error of the outputs of the embeddings: TinyBERT (arXiv 1909.10351), eq. 9.

    Arguments, mean and errors as in `hidden_mse`: the embeddings are layer 0. Paper and published code differ in the
    projection before it: the paper gives the embeddings a matrix W_e of their own, the code treats them as one more
    hidden state, under the matrix of all layers. `distill.encoders.projections.Projections` has both.
    """
    return hidden_mse(student, teacher, mask, form)
