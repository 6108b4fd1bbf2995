"""The use cases, a noun for each file: uploads, push, pull, history, repositories, trash, retention, audit."""
