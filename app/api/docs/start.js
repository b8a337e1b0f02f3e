// The key that is typed in stays in this page: it is not persisted, and sent to this studio alone.
SwaggerUIBundle({
  url: "v1/openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  docExpansion: "none",
  persistAuthorization: false,
  validatorUrl: null,
});
