"""Exact search side by side with FAISS and LanceDB, and with the speed of memory."""
