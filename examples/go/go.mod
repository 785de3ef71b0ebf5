module example.com/venvoy

go 1.21
