"""The forms of requests and answers, a file for each dialect."""
