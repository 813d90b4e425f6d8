"""Pages that follow one another: where the next one begins, sealed for one question, and whether an answer changed."""
