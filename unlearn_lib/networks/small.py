"""The laboratory's two small networks, LeNet5 and KarpathyNet."""

import torch
from torch import nn
from torch.nn import functional as F


class LeNet5(nn.Module):
    """6-16-120-84 network for 28x28 grey pictures (LeCun et al. 1998), with ReLU and max pooling; 99.2 % on MNIST.

    Example:
        >>> LeNet5(num_classes=10)(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    input_shape = (1, 28, 28)

    def __init__(self, num_classes: int = 10, dropout: float = 0.0):
        super().__init__()
        self.dropout = dropout
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.pool2 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool1(F.relu(self.conv1(x)))
        x = self.flatten(self.pool2(F.relu(self.conv2(x))))
        x = F.relu(self.fc2(F.relu(self.fc1(x))))
        return self.fc3(F.dropout(x, self.dropout, self.training))

    def extra_repr(self) -> str:
        return f"dropout={self.dropout}"


class KarpathyNet(nn.Module):
    """Six 5x5 convolutions of 16 filters in three pooled pairs and one linear layer, for 32x32 colour pictures.

    Example:
        >>> KarpathyNet(num_classes=10)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    input_shape = (3, 32, 32)

    def __init__(self, num_classes: int = 10, dropout: float = 0.0):
        super().__init__()
        self.dropout = dropout
        self.conv11 = nn.Conv2d(3, 16, 5, padding=2)
        self.conv12 = nn.Conv2d(16, 16, 5, padding=2)
        self.pool1 = nn.MaxPool2d(2)
        self.conv21 = nn.Conv2d(16, 16, 5, padding=2)
        self.conv22 = nn.Conv2d(16, 16, 5, padding=2)
        self.pool2 = nn.MaxPool2d(2)
        self.conv31 = nn.Conv2d(16, 16, 5, padding=2)
        self.conv32 = nn.Conv2d(16, 16, 5, padding=2)
        self.pool3 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(256, num_classes)
        for module in self.modules():  # PyTorch's own start is too small for seven layers to learn from few pictures
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool1(F.relu(self.conv12(F.relu(self.conv11(x)))))
        x = self.pool2(F.relu(self.conv22(F.relu(self.conv21(x)))))
        x = self.pool3(F.relu(self.conv32(F.relu(self.conv31(x)))))
        return self.fc1(F.dropout(self.flatten(x), self.dropout, self.training))

    def extra_repr(self) -> str:
        return f"dropout={self.dropout}"
