"""Name the methods that make images square, without importing the code that resizes."""

SQUASH, CROP, PAD = "squash", "crop", "pad"
RESIZES = {
    SQUASH: "squashed to a square",
    CROP: "short side to 8/7 of the input's side, the middle cut out",
    PAD: "long side to the input's side, the rest black",
}
