"""Search: prompts ranked, combined and found, with a budget, on rows that no result is measured on."""
