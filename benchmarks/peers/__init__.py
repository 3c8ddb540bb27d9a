"""Compare this project with the post-training quantization of Olive and NNCF."""
