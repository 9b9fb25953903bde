"""Other providers' APIs behind OpenAI's shape, through the library that speaks them, and what each of them supports."""
