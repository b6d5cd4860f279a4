"""How the demo was made: speech and codes, the decoder, the encoder, the measurement. Not part of the wheel."""
