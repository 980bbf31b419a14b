"""The oracle's steps backward: from the gradient of a result to the gradients of what it was made of.

A loss L is any number that is computed from a result; dY stands for ∂L/∂Y, a matrix of Y's shape. Each function here takes the
gradient of what its step returns and then the arguments of that step, and returns the gradient of each argument. The derivation
stands above the lines that compute it; three rules are all that is used:

    Y = A B            dA = dY Bᵀ          dB = Aᵀ dY
    y_ij = f(x_ij)     dx_ij = dy_ij · f′(x_ij)
    used twice         the gradients of both uses are added up

NumPy, float64, one sequence at a time, as forward. The forward matrices that are needed are computed again, by the same formulas
and under the same names. Gradients of parameters come in the dataclass of those parameters.
"""
