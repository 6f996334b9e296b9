base:
  'role:web':
    - match: grain
    - web
