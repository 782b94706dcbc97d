"""The same network trained by other libraries, each a script of its own: ``python SCRIPT DATA.npz EPOCHS SEED`` answers with a line
of JSON.

The network is 784-400-20 with ReLU, a Gaussian posterior by mean and log-variance, a Bernoulli likelihood on grey MNIST; batch 128, Adam
1e-3. ``DATA.npz`` holds ``train`` [N, 784] and ``test`` [M, 784], float32. The answer holds seconds per epoch, the bound on the test images
(one sample each, nats) and versions. torch's share of the work runs with two threads.
"""
