"""bert-ops: raw text to a pretrained, fine-tuned, evaluated and compressed BERT, as a reproducible pipeline."""

__version__ = "0.1.0"
