"""Sources to clean, de-duplicated and split documents, sentences and labelled examples."""
