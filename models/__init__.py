KINDS = ("Bert", "TinyBert")
"""How the names of PaddleNLP's classes begin that a BERT student may start from."""
