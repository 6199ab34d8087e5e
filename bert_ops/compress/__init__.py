"""From a fine-tuned model to the small one that ships."""
