"""The task of sparse mixtures of experts over text, images and audio."""
