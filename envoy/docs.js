// Without `validatorUrl: null`, Swagger UI would send the address of openapi.json to a service of its makers.
SwaggerUIBundle({ url: "openapi.json", dom_id: "#page", deepLinking: true, validatorUrl: null });
