"""Image diffusion: a process, a network and a sampler, three things that know nothing of each other."""
