"""What a Core ML package says, computed without Core ML: any machine can check an `.mlpackage`.

`package` reads the program, `evaluator` computes its operations in order, `operators` holds one
file a family of them, `flags` tells where fp16 overflows and underflows.
"""
