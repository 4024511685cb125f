"""How fast, how fresh, how large: the stream workers beside other libraries doing the same; what an answer costs."""
