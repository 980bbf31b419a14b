"""Claims without a verdict: each has a script that measures, and leaves a table, a plot and a sentence.

python -m properties.studies.growth [-o DIR]      R3: activations, gradients and tokens over depth
python -m properties.studies.context [-o DIR]     G2: what a trained model makes of longer and shorter prompts
python -m properties.studies.jacobian [-o DIR]    A11: how much a softmax can still learn from large scores
"""
