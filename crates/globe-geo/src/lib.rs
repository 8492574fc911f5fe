//! Answers to places: parsing, gazetteer, clustering.
