"""Text encoders, one file a family, and the tokenizer that they share."""
