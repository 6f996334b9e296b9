port: 8080
