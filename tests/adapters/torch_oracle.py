"""What torch says of a diffusers network: its output and derivatives, as arrays with channels last."""

import numpy as np
import torch


def randomised(module, seed):
    """The module in evaluation mode, with all its parameters drawn again so that none is zero or one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    for layer in module.modules():
        # Attention normalises transposed arrays, of which torch's normalisation has no forward derivative.
        if isinstance(layer, torch.nn.GroupNorm):
            layer.register_forward_pre_hook(lambda layer, inputs: (inputs[0].contiguous(),))
    return module.eval()


def channels_last(tensor):
    return np.ascontiguousarray(tensor.detach().numpy()[0].transpose(1, 2, 0))


def value_and_derivatives(function, shape, seed, dtype=torch.float32):
    """``x``, ``v``, ``w`` (of the shape of the output) and ``function(x)``, ``J v``, ``J^T w``, for batches of one. The
    first three are the same for every ``dtype``, that of the function."""
    generator = torch.Generator().manual_seed(seed)
    x, v = (torch.randn((1, *shape), generator=generator).to(dtype) for _ in range(2))
    # The fast kernels of attention have no forward derivative.
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        value, jvp = torch.func.jvp(function, (x,), (v,))
        w = torch.randn(value.shape, generator=generator).to(dtype)
        _, pullback = torch.func.vjp(function, x)
        (vjp,) = pullback(w)
    tensors = {"x": x, "v": v, "w": w, "value": value, "jvp": jvp, "vjp": vjp}
    return {name: channels_last(tensor) for name, tensor in tensors.items()}
