"""``bert-ops doctor``: what this machine and installation are, and what is wrong with them."""

from bert_ops.doctor.report import add_arguments, run

__all__ = ["add_arguments", "run"]
