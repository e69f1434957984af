"""Images in files, in tiles, in folders and in videos: the only place where files become pixels and back."""
