"""The book of costs for others: FOCUS for tools of finance, statements for teams."""
