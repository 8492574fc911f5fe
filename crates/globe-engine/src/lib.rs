//! Prompt to tokens to places: text input, sampling, generation, locating.
