"""`geoloc locate`: the question, and one file a way of answering."""
