//! Prompts to token ids and back: tokenizer, chat template, prompt contract.
