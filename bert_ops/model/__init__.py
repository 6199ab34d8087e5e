"""Encoder, heads, embedding initialisation and the exchange of weights with Hugging Face."""
