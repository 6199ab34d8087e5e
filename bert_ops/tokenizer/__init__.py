"""WordPiece training and the memory-mapped token store."""
