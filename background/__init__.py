"""Who is foreground: mattes, GrabCut, rembg, the review of mattes. Imports photos and below."""
