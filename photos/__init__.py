"""Photos on disk and as pixels: reading, views, crops, the store. Imports common and labels."""
