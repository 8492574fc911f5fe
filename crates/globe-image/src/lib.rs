//! Photo bytes to model patches: decoding, orientation, resizing, normalisation.
