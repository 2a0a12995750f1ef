"""The parity ladder: does an artifact compute what PyTorch computes?"""
