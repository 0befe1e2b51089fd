"""The command line's verbs, by what they are for; `multimodal_rec.cli` puts them together."""
