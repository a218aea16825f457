"""Speech recognition: LibriSpeech."""
